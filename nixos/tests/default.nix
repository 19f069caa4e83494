# The cases, with the stand-in for the option system.
{ profiles ? null }: import ./cases.nix { inherit profiles; lib = import ./lib.nix; }
