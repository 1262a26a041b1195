"""Machine code for the few loops over all parameters, made at run time: LLVM on a CPU, Triton on a GPU."""
