"""The only producer of weights: from a folder of labelled scans to a published version."""
