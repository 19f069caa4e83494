// Package delegated speaks the Delegated Routing V1 HTTP API of IPFS
// (https://specs.ipfs.tech/routing/http-routing-v1/): as a client it asks
// endpoints who provides a key, beside a DHT or instead of one; as a server it
// tells what this node's DHT knows.
//
// Asking is telling. An endpoint learns what is looked for, so whoever uses a
// Client asks it about no more than strangers may hear of. In a private network
// a Client asks only endpoints that serve this very network, which they say in a
// header: a public one, set by mistake, never hears a question.
package delegated

import (
	"crypto/sha256"
	"encoding/hex"
)

// networkHeader is in every answer of a Handler. It tells the network that it
// serves, as networkTag writes it.
const networkHeader = "Nar-P2p-Network"

// networkTag stands for a network in networkHeader: the name itself is
// nobody's business.
func networkTag(network string) string {
	sum := sha256.Sum256([]byte("nar-p2p network " + network))
	return hex.EncodeToString(sum[:16])
}

// maxAddresses bounds the addresses of a provider.
const maxAddresses = 16
