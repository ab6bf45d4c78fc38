"""An application in several features."""
