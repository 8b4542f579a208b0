"""Methods of several papers side by side. Each comparison is a module, a card and a notebook, as each paper is."""
