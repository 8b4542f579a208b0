"""$title ($name)."""

from papernets.papers.$module.method import $config, treat_
