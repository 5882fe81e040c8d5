"""Fill files and arrays of any kind, in constant memory, by one process or several."""
