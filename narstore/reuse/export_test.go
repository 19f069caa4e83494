package reuse

// OnMains is onMains, for the supplies in dir.
func OnMains(dir string) bool { return onMains(dir) }

// FamilyOf returns what the name of a path says of its package.
func FamilyOf(name string) (family, output string) { return familyOf(name), outputOf(name) }
