# What "nix flake check" runs. The tests that want Nix, a network of their own and
# the race detector are in "make test".
{ pkgs, package }:

let
  inherit (pkgs) lib;
  cases = import ./tests/cases.nix { lib = import ./tests/lib.nix; };
in
{
  inherit package;

  tests = package.overrideAttrs {
    doCheck = true;
    checkPhase = ''
      runHook preCheck
      go vet ./...
      go test ./narstore/nar/... ./narstore/narinfo/... ./narstore/nix/... ./internal/budget/... ./internal/version/...
      runHook postCheck
    '';
  };

  lint = package.overrideAttrs (old: {
    nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.golangci-lint ];
    buildPhase = "HOME=$TMPDIR golangci-lint run --config=${../.golangci.yml} ./...";
    installPhase = "touch $out";
  });

  module = assert cases.failures == [ ]; pkgs.emptyFile;
} // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
  vm = pkgs.callPackage ./tests/vm.nix { inherit package; };
}
