"""Every method, a file per equation; ``registry.entries`` finds them by walking this package."""
