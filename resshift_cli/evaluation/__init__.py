"""How models are measured, on images whose originals are known and on the clock.

How well they do, `resshift eval`:

- `metrics`: what can be measured, by name; `bootstrap`: means, and how far they can be trusted.
- `pairs`: originals and their low-quality partners.
- `book`: the folder where results are kept.
- `rows`: ways of enlarging, and results that were made elsewhere.
- `comparison`: rows, measured on the same images.
- `details`: the same detail in every row; `page`: the whole as one HTML page.
- `report`: what is told, to programs and to people.

How fast they are, `resshift bench`:

- `trial`: one thing to measure; `worker`: a process of its own for it; `timing`: what came of it.
- `turns`: trials that take turns; `speed`: what is reported.
- `unoptimised`: networks without anything done for speed, to compare with.

Each imports of the others only what stands above it in its list.
"""
