"""A plugin of pytest: examples that fail are not made smaller, which takes minutes where a bug makes messages wait."""

from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.generate), database=None)
settings.load_profile("unshrunk")
