"""From float matrices (or a checkpoint's own blocks) to what the operators read.

`plan` decides which matrix gets which QuantSpec and why, `rtn` rounds, `codec` is the numpy
definition of the stored layout: packing, and the dequantisation that verification trusts.
"""
