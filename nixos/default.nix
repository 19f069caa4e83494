# The package, where there is no flake.
{ pkgs ? import <nixpkgs> { } }: pkgs.callPackage ./package.nix { }
