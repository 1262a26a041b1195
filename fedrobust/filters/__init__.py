"""The spectral filters that rules and estimators share: loops over weights, over the Gram matrix or the samples."""
