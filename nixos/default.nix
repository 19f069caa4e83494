# For those without flakes: nix-build nixos
{ pkgs ? import <nixpkgs> { } }: pkgs.callPackage ./package.nix { }
