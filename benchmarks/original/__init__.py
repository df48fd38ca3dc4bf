"""MILAN as its authors' code computes it, in eager PyTorch: what `milan-onnx` is measured against.

Written from the paper and from a description of the original's behaviour, with the work that it
does and where it does it: two passes of the photos a layer, a KLL sketch fed in a Python loop, an
upsampling for every unit and exemplar, exemplars encoded unit by unit, attention keys projected
again for each beam and step, beams that have stopped computed on, the language model run over whole
captions, its mask made in a loop. The original's lightbox pictures, which it also writes by
default, are left out.

`networks` has the original's layers and names, so its checkpoints load; `exemplars` finds
exemplars; `decoding` searches; `describing` does all of it.
"""
