// Package nixos holds no code: it tests the NixOS module, the package and the
// units that lie beside it.
package nixos
