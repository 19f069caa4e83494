# The package, where there is no flake: nix-build nixos
{ pkgs ? import <nixpkgs> { } }: pkgs.callPackage ./package.nix { }
