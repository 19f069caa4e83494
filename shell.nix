# For those without flakes: nix-shell
import ./nixos/shell.nix
