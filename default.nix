# For those without flakes: nix-build
import ./nixos
