"""How models are measured on images whose originals are known: the rooms of `resshift eval`.

- `metrics`: what can be measured, by name: our own figures (`restoration.quality`) and pyiqa's.
- `bootstrap`: means, and how far they can be trusted.
- `pairs`: originals and their low-quality partners.
- `book`: the folder where results are kept.
- `comparison`: rows of results, measured on the same images.
- `details`: the same detail in every row; `page`: the whole as one HTML page.

These rooms import the core, `degradation` and `realistic` of `resshift_cli.training`, and of one
another only what stands above. Nothing imports them but, when a command is run, the rooms of
commands (`cli_*`).
"""
