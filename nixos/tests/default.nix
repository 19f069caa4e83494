# The cases, with the stand-in for the option system.
import ./cases.nix { lib = import ./lib.nix; }
