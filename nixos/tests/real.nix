# The cases with the library of nixpkgs itself, where it can be had:
# nix-instantiate --eval --strict nixos/tests/real.nix -A failures
{ path ? <nixpkgs/lib>, profiles ? null }:

let
  lib = import path;
  standin = import ./lib.nix;

  # open declares what NixOS does around the module, without looking at it.
  open = lib.genAttrs [ "systemd" "users" "networking" "environment" "launchd" ] (_: lib.mkOption {
    type = lib.types.submodule { freeformType = lib.types.attrsOf lib.types.anything; };
    default = { };
  });
  lists = lib.genAttrs [ "assertions" "warnings" ] (_: lib.mkOption { type = lib.types.listOf lib.types.unspecified; default = [ ]; });
in
import ./cases.nix {
  inherit profiles;
  lib = lib // {
    evaluate = module: definitions: (lib.evalModules {
      modules = [
        { options = open // lists; }
        {
          options.nix.settings = lib.mkOption {
            type = lib.types.submodule {
              freeformType = lib.types.attrsOf lib.types.anything;
              options.substituters = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
              options.trusted-public-keys = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
            };
            default = { };
          };
        }
        { _module.args.pkgs = standin.pkgs // { formats.toml = _: { type = lib.types.attrsOf lib.types.anything; generate = _: settings: { inherit settings; outPath = "/nix/store/x"; }; }; }; }
        module
      ] ++ definitions;
    }).config;
  };
}
