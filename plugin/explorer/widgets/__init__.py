"""The parts that pages share on the screen, and the state that lives in the address and in the widgets."""
