"""A folder of images: what is there, what is done, and what is left to do.

A batch takes three steps, and none of them knows how it was asked for:

    folders.find -> Found       which files are inputs
    plan.make    -> Plan        what is to be done, what is finished, what can't be done
    Plan.groups  -> Runner.run  read, enlarge, write, and enter in the ledger

`recipe` is what all results have in common, `names` what they are called, `resume` what counts as
finished, `worker` what one image takes, `gauge` how far it is. `forecast`, `report`, `table` and
`verify` tell of it.
"""
