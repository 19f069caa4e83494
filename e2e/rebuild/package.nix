# One package: a derivation whose builder is build.sh. All but the leaf have it
# in their environment, as everything in nixpkgs has its stdenv.
{ buildID }:

{ name, version, src, outputs ? [ ], libraries ? [ ], shell ? null, cxx ? false, leaf ? "" }:

derivation {
  name = "${name}-${version}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ ./build.sh ];
  pname = name;
  outputs = [ "out" ] ++ outputs;
  inherit version src leaf buildID;
  libraries = map (l: l.out) libraries;
  headers = map (l: l.dev or l.out) libraries;
  links = map (l: "-l${l.linked}") libraries;
  shell = if shell == null then "" else shell;
  compiler = if cxx then "g++" else "gcc";
} // {
  linked = builtins.substring 3 100 name;
}
