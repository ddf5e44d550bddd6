"""Formulas: expressions as trees and tokens, populations of them on the device, and searches for those that fit data.

| module | holds |
|---|---|
| ``expressions`` | trees; prefix, infix and number tokens; the registry of operators |
| ``edge`` | expressions from sympy, simplification, equivalence |
| ``programs`` | a population of expressions as tensors: evaluation and derivatives all at once |
| ``front`` | the result of a search: the best expression of each size, and the choice among them |
| ``evolution`` | regularised evolution |
| ``enumeration`` | all small expressions; sums of terms from a library |
| ``search`` | one interface to them; the refit of constants |
"""
