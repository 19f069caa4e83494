{ lib
, buildGoModule
, stdenv
, version ? "0.1.0"
}:

buildGoModule {
  pname = "nar-p2p";
  inherit version;

  # All that holds Go, for that is what the hash is made of.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../.ci
      ../LICENSE
      ../README.md
      ../cmd
      ../e2e
      ../go.mod
      ../go.sum
      ../internal
      ../narstore
      ../nixos
      ../p2p
      ../substituter
    ];
  };
  # "make vendor-hash" brings it up to date; "make check" fails where it is not.
  vendorHash = lib.fileContents ./vendor-hash;

  subPackages = [ "cmd/nar-p2pd" "cmd/p2pctl" ];
  env.CGO_ENABLED = 0;
  ldflags = [ "-s" "-w" "-X github.com/nar-p2p/nar-p2p/internal/version.override=${version}" ];

  # The tests want Nix, namespaces and several minutes: "make test" runs them.
  doCheck = false;

  # What was built for another system cannot write its manuals here.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    BIN="$GOPATH/bin" P2PCTL="$GOPATH/bin/p2pctl" PREFIX="$out" DESTDIR="" \
      OS=${if stdenv.hostPlatform.isDarwin then "darwin" else "linux"} bash .ci/install
  '';

  meta = {
    description = "Peer-to-peer binary cache for Nix";
    homepage = "https://github.com/nar-p2p/nar-p2p";
    license = lib.licenses.mit;
    mainProgram = "nar-p2pd";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
