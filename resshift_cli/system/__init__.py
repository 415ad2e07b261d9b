"""What the operating system and the machine are asked for: files, devices."""
