// Package host builds the libp2p host of a node: its identity, transports,
// limits, and the rules that say with whom it connects at all.
//
// The numbers are those of a workstation that has better things to do: few
// connections, 256 MiB of memory for the network at the very most, and nothing
// relayed for others unless the node is infrastructure.
package host
