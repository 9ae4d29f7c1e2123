"""The HTTP gateway: it streams bytes to disk and reads rows. It decodes no scan and runs no network."""
