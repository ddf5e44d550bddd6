"""Neural operators: networks from fields to fields, whatever grid they are given on.

The blocks that they are made of, which other parts use too, are in ``pdebook.nn``.

| module | paper |
|---|---|
| ``mg_tfno`` | Kossaifi et al. 2024: patches with coarse context, and one low-rank tensor for the weights of all layers |
| ``mg_tfno_examples`` | the maps that its chapter learns, the loop that learns them, the shipped networks |
"""
