"""Where examples come from: installed packages, the hub, files, or a generator."""
