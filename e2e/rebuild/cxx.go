package rebuild

import (
	"fmt"
	"strings"
)

const (
	// bytesPerClasses is how many bytes a file of C++ becomes, about.
	bytesPerClasses = 44 << 10
	classesPerFile  = 5
	methodsPerClass = 4
)

// classes returns the text of p's files of C++, by their names.
func (p *pkg) classes() map[string]string {
	sources := make(map[string]string)
	if !p.cxx() {
		return sources
	}
	r := p.random("classes")
	for i := range max(1, p.code/2/bytesPerClasses) {
		stem := fmt.Sprintf("%s_%s%d", choose(r, adjectives), choose(r, nouns), i)
		f := p.newFile(stem, 1000+i)
		sources[stem+".cc"] = f.writeClasses()
	}
	return sources
}

// cxx reports whether half of p's code is in C++: that of each fourth program is.
func (p *pkg) cxx() bool {
	return p.kind == cxxLibrary || p.kind == program && p.random("language").IntN(4) == 0
}

// writeClasses writes classes on the templates of the standard library.
func (f *file) writeClasses() string {
	r := f.p.random("head of %s", f.stem)
	f.printf("%s", paragraph(r, 2, "// "))
	f.printf("#include <algorithm>\n#include <cstdint>\n#include <cstdio>\n#include <cstring>\n#include <map>\n#include <stdexcept>\n#include <string>\n#include <vector>\n")
	for _, library := range f.p.libraries {
		f.printf("#include <%s/%s.h>\n", library.prefix(), library.prefix())
	}
	f.printf("\nnamespace %s {\n", strings.ReplaceAll(f.stem, "-", "_"))
	f.state()
	f.printf("\n%s", registry)
	f.table(0)
	f.table(1)
	for i := range classesPerFile {
		f.class(i)
	}
	f.printf("\n}\n")
	return f.String()
}

// registry is a template that each class has of its items.
const registry = `template <typename T> class registry {
public:
	T &add(const std::string &name, const T &value) {
		auto found = items_.find(name);
		if (found != items_.end())
			throw std::invalid_argument("duplicate " + name);
		order_.push_back(name);
		return items_.emplace(name, value).first->second;
	}
	bool remove(const std::string &name) {
		order_.erase(std::remove(order_.begin(), order_.end(), name), order_.end());
		return items_.erase(name) > 0;
	}
	template <typename F> void each(F f) {
		for (const auto &name : order_)
			f(name, items_.at(name));
	}
	std::vector<std::string> sorted() const {
		std::vector<std::string> names(order_);
		std::sort(names.begin(), names.end());
		return names;
	}
private:
	std::map<std::string, T> items_;
	std::vector<std::string> order_;
};
`

// class defines the i-th class. Its methods count as functions.
func (f *file) class(i int) {
	r := f.p.random("class %d of %s", i, f.stem)
	name := f.name(choose(r, adjectives) + "_" + choose(r, nouns))
	f.printf("\n// %s\nclass %s {\npublic:\n", sentence(r), name)
	f.printf("\texplicit %s(const std::string &name) : name_(name), state_() {}\n\tvirtual ~%s() {}\n", name, name)
	methods := make([]string, methodsPerClass)
	for j := range methods {
		methods[j] = fmt.Sprintf("%s_%s%d", choose(r, verbs), choose(r, nouns), j)
		f.printf("\tvirtual int %s(uint32_t a, uint32_t b);\n", methods[j])
	}
	f.printf("\tstruct item {\n\t\tstd::string label;\n\t\tuint32_t weight;\n")
	for j := range r.IntN(4) {
		f.printf("\t\t%s member%d;\n", choose(r, []string{"uint64_t", "std::string", "std::vector<uint32_t>", "double"}), j)
	}
	f.printf("\t\tbool operator<(const item &o) const { return %s; }\n\t};\n", choose(r, []string{"label < o.label", "weight < o.weight"}))
	f.printf("\tstd::vector<item> select(const std::string &prefix);\n")
	f.printf("private:\n\tstd::string name_;\n\tstate state_;\n\tregistry<item> items_;\n};\n")
	for j, method := range methods {
		f.method(name, method, i*methodsPerClass+j)
	}
	f.printf(selection, name, name, choose(r, verbs)+" "+choose(r, nouns), choose(r, f.fields))
}

func (f *file) method(class, name string, i int) {
	revision := f.p.revision(f.number + i)
	r := f.p.random("method %d of %s, revision %d", i, f.stem, revision)
	f.printf("\nint %s::%s(uint32_t a, uint32_t b)\n{\n\tstate *s = &state_;\n", class, name)
	b := &body{scope: f.scope, r: r}
	if r.IntN(2) == 0 {
		b.line("item added{};")
		b.line("added.label = name_ + %q;", "/"+choose(r, nouns))
		b.line("added.weight = %d + a;", r.IntN(100))
		b.line("items_.add(added.label, added);")
	}
	b.transform()
	f.WriteString(b.String())
	f.printf("}\n")
}

// selection has a class return some of its items.
const selection = `
std::vector<%s::item> %s::select(const std::string &prefix)
{
	std::vector<item> found;
	for (const auto &name : items_.sorted())
		if (name.compare(0, prefix.size(), prefix) == 0)
			items_.each([&](const std::string &other, const item &value) {
				if (other == name)
					found.push_back(value);
			});
	std::stable_sort(found.begin(), found.end());
	if (found.empty())
		throw std::out_of_range(%q + name_);
	state_.%s = (uint32_t)found.size();
	return found;
}
`
