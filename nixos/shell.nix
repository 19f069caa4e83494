# What it takes to work on nar-p2p: nix-shell nixos/shell.nix, or nix develop.
{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell {
  packages = with pkgs; [ git gnumake go gopls ]
    ++ lib.optionals stdenv.hostPlatform.isLinux [ bubblewrap chromium gcc iproute2 miniupnpd-nftables nftables nodejs prometheus systemd ];
}
