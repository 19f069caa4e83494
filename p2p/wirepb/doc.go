// Package wirepb holds the messages of the stream protocols, generated from
// wire.proto. Only package exchange uses it: other packages see its Go types.
package wirepb
