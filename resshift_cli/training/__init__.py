"""How models are trained: the rooms of `resshift train`.

- What to train on: `photos` (folders, splits, files in memory), `crops` (where to cut), `kernels`,
  `realistic` and `degradation` (low-resolution partners), `damage` (holes in them), `dataset`
  (batches of both).
- What a run is: `recipe`, the configuration as frozen types.
- How: `network` (first weights), `objective` (steps drawn, errors weighed), `ranks` (several
  processes), `trainer` (the state of a run, and one step of it).
- What it leaves: `runlog` (the folder of the run), `sheet` (pictures side by side), `card` (the
  draft of a model's card). `preview` shows crops before anything is trained.
- `train`: all of it, from top to bottom.

These rooms import the core, and of one another only what stands above. Nothing outside imports
them but `resshift_cli.evaluation`, which degrades originals as training does, and, when a command
is run, the rooms of commands (`cli_*`).
"""
