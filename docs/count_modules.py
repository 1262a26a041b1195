"""Count what docs/architecture.md says of the layers: modules, loose ones, pairs of packages that import each other."""

from collections import defaultdict

import grimp

GRAPH = grimp.build_graph("fedrobust")


def package_of(module: str) -> str:
    """The package directly below fedrobust that a module lies in, or the module itself."""
    return module.split(".")[1] if "." in module else module


def main() -> None:
    """Print one line for each figure."""
    modules = GRAPH.modules - {"fedrobust"}
    packages = {package_of(module) for module in modules if module.count(".") > 1}
    imports = defaultdict[str, set[str]](set)
    for module in modules:
        imports[package_of(module)] |= {package_of(one) for one in GRAPH.find_modules_directly_imported_by(module)}
    pairs = sorted((a, b) for a in packages for b in packages if a < b and b in imports[a] and a in imports[b])
    print(f"modules: {len(modules)}, packages: {len(packages)}")
    print(f"loose: {sorted({package_of(module) for module in modules} - packages)}")
    print(f"pairs of packages that import each other: {len(pairs)} {pairs}")
    for package in sorted(packages):
        print(f"{package}: {sum(package_of(module) == package for module in modules)} modules")


if __name__ == "__main__":
    main()
