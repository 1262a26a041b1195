def write_readme(folder, names):
    pass
