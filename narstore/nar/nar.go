// Package nar makes and reads NARs, the archives whose sha-256 Nix signs.
//
// A NAR is a canonical writing of a file tree: one tree has one NAR. It holds
// names, contents, symlink targets and the executable bit, and nothing else. It
// consists of strings, each a length (64 bits, little endian), its bytes, and
// zeros up to a multiple of 8:
//
//	archive = "nix-archive-1" node
//	node    = "(" "type" ( regular | symlink | directory ) ")"
//	regular = "regular" [ "executable" "" ] "contents" <bytes>
//	symlink = "symlink" "target" <target>
//	directory = "directory" { "entry" "(" "name" <name> "node" node ")" }
//
// with the entries of a directory in strictly increasing order of their bytes
// (E. Dolstra, The Purely Functional Software Deployment Model, figure 5.2;
// libutil/archive.cc).
//
// Archive is the NAR of a tree on the disk. It is never made: only its layout
// is computed, and every byte range is read straight from the files. Reader
// takes a NAR that arrives from elsewhere and refuses every byte that a Nix
// store could not have written.
package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The limits of Linux, on trees on the disk and on arriving NARs alike: what is
// beyond them cannot lie in a store.
const (
	// maxNameLen is NAME_MAX, in bytes.
	maxNameLen = 255
	// maxPathLen is PATH_MAX without its NUL, in bytes, for a path below the
	// archive's root. Nix hands whole paths to the system, so none of its trees
	// goes deeper. It bounds the depth too: to 2,048 directories.
	maxPathLen = 4095
	// maxTargetLen is the longest target of a symlink, in bytes.
	maxTargetLen = 4095
)

// magic is the first string of every NAR.
const magic = "nix-archive-1"

// Type is the kind of a node.
type Type uint8

// The three kinds of nodes. There are no others in a NAR.
const (
	Regular Type = iota + 1
	Symlink
	Directory
)

// String returns the word that stands in the archive.
func (t Type) String() string {
	switch t {
	case Regular:
		return "regular"
	case Symlink:
		return "symlink"
	case Directory:
		return "directory"
	}
	return fmt.Sprintf("Type(%d)", uint8(t))
}

// Header describes one node of an archive.
type Header struct {
	// Path is relative to the archive's root, whose own Path is "". Its
	// elements are separated by slashes and need not be UTF-8.
	Path string
	Type Type
	// Executable is for regular files only.
	Executable bool
	// Size is the length of a regular file in bytes.
	Size int64
	// Target is where a symlink points.
	Target string
}

// checkName accepts what can be the name of a file.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case name == "." || name == "..":
		return fmt.Errorf("name %q", name)
	case len(name) > maxNameLen:
		return fmt.Errorf("name of %d bytes is longer than %d", len(name), maxNameLen)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q contains a slash or NUL", name)
	}
	return nil
}

// checkTarget accepts what can be the target of a symlink.
func checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("empty symlink target")
	case len(target) > maxTargetLen:
		return fmt.Errorf("symlink target of %d bytes is longer than %d", len(target), maxTargetLen)
	case strings.Contains(target, "\x00"):
		return errors.New("symlink target contains a NUL")
	}
	return nil
}

// padding is the number of zeros that follow n bytes.
func padding(n int64) int64 { return -n & 7 }

// appendString appends s as NARs write it.
func appendString[S string | []byte](b []byte, s S) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	b = append(b, s...)
	return append(b, zeros[:padding(int64(len(s)))]...)
}

// appendStrings appends every one of words.
func appendStrings(b []byte, words ...string) []byte {
	for _, w := range words {
		b = appendString(b, w)
	}
	return b
}

var zeros [8]byte
