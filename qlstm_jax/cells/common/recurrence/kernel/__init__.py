"""The recurrence as persistent kernels for NVIDIA GPUs from Hopper on, written in Pallas (Mosaic GPU).

A block of the kernel has one head and TILE sequences, and runs over all their tokens with U in its shared memory. Each
of its warpgroups has ROWS units of the head: it holds their gates' pre-activations, states and h in registers, and
shares h (forward) or da (backward) with the others through shared memory, twice, so that one barrier a token suffices.
Products are transposed, (Uᵀ hᵀ), for units are many and sequences few: no row is padded.

Arrays are "by unit": (T, N, M, K, B), with M columns of a unit's row.
"""
