# What the flake offers and what the package is made of, with stand-ins for nixpkgs.
let
  lib = {
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: attrs: if condition then attrs else { };
    optionalString = condition: text: if condition then text else "";
    fileContents = file: builtins.head (builtins.match "(.*)\n" (builtins.readFile file));
    fileset = { toSource = source: source; unions = files: files; };
    licenses.mit = "MIT";
    platforms = { linux = [ "linux" ]; darwin = [ "darwin" ]; };
  };
  stdenv = {
    buildPlatform.canExecute = _: true;
    hostPlatform = { isDarwin = false; isLinux = true; };
  };
  package = arguments: import ../package.nix ({ inherit lib stdenv; buildGoModule = made: made; } // arguments);
  pkgs = { inherit lib stdenv; callPackage = _: package; };
  outputs = (import ../../flake.nix).outputs {
    self = { shortRev = "0123456"; };
    nixpkgs = { inherit lib; legacyPackages = lib.genAttrs outputs.systems (_: pkgs); };
  } // { systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ]; };
in
{
  names = builtins.attrNames (removeAttrs outputs [ "systems" ]);
  systems = builtins.attrNames outputs.packages;
  checks = builtins.attrNames outputs.checks.x86_64-linux;
  inherit (outputs.packages.x86_64-linux.default) vendorHash version;
}
