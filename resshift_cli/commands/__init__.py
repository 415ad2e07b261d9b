"""What a person types and sees; nothing else imports it."""
