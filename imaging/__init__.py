"""Bytes to Volume and back: NIfTI, DICOM series, previews. No torch, no HTTP."""
