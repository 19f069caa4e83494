// Command interop is kubo, the reference node of IPFS, for the test of
// interoperability (make interop). It is a module of its own, so that nar-p2p
// does not depend on what kubo depends on.
package main

import (
	"os"

	"github.com/ipfs/kubo/cmd/ipfs/kubo"
)

func main() { os.Exit(kubo.Start(kubo.BuildDefaultEnv)) }
