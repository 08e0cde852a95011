"""The ground floor: PyTorch's autograd with sizes in place of numbers. It knows no model and no method."""
