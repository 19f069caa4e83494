{
  description = "A peer-to-peer binary cache for Nix";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      forAll = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      # flakePackage says of which commit it is.
      flakePackage = pkgs: pkgs.callPackage ./nixos/package.nix {
        version = "0.1.0-${self.shortRev or self.dirtyShortRev or "dirty"}";
      };
    in
    {
      packages = forAll (pkgs: rec {
        nar-p2p = flakePackage pkgs;
        default = nar-p2p;
      });

      apps = forAll (pkgs:
        let
          app = program: {
            type = "app";
            program = "${flakePackage pkgs}/bin/${program}";
          };
        in
        rec {
          nar-p2pd = app "nar-p2pd";
          p2pctl = app "p2pctl";
          default = p2pctl;
        });

      overlays.default = final: _: { nar-p2p = flakePackage final; };

      nixosModules.default = { lib, pkgs, ... }: {
        imports = [ ./nixos/module.nix ];
        services.nar-p2pd.package = lib.mkDefault (flakePackage pkgs);
      };

      darwinModules.default = { lib, pkgs, ... }: {
        imports = [ ./nixos/darwin.nix ];
        services.nar-p2pd.package = lib.mkDefault (flakePackage pkgs);
      };

      devShells = forAll (pkgs: { default = import ./nixos/shell.nix { inherit pkgs; }; });

      checks = forAll (pkgs: import ./nixos/checks.nix { inherit pkgs; package = flakePackage pkgs; });
    };
}
