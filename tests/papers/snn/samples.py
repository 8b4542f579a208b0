"""What several tests of Sub-bit networks look at."""



def names(model, kind):
    return [name for name, module in model.named_modules() if isinstance(module, kind)]
