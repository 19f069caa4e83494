# A small stand-in for the option system of nixpkgs, to evaluate our module where
# nixpkgs cannot be had. It merges and checks as far as the module goes and no
# further; where it differs from the real one, the real one is right.
let
  inherit (builtins) all attrNames concatMap elem filter foldl' hasAttr head isAttrs isBool isInt isList isString length
    listToAttrs mapAttrs match sort stringLength substring tail;

  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: attrs: if condition then attrs else { };
  nameValue = name: value: { inherit name value; };
  unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
  hasPrefix = prefix: s: substring 0 (stringLength prefix) s == prefix;
  hasSuffix = suffix: s:
    let n = stringLength s - stringLength suffix;
    in n >= 0 && substring n (stringLength suffix) s == suffix;
  filterAttrsRecursive = keep: attrs: listToAttrs (concatMap
    (name:
      let value = attrs.${name};
      in optional (keep name value)
        (nameValue name (if isAttrs value then filterAttrsRecursive keep value else value)))
    (attrNames attrs));

  is = kind: value: isAttrs value && (value._type or "") == kind;
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = order: content: { _type = "order"; inherit order content; };
  mkOption = declaration: { _type = "option"; } // declaration;

  plain = value: { inherit value; priority = 100; order = 1000; };

  # settle turns a definition into those that count, without their wrappings.
  settle = definition:
    let value = definition.value; in
    if is "if" value then (if value.condition then settle (definition // { value = value.content; }) else [ ])
    else if is "override" value then settle (definition // { value = value.content; inherit (value) priority; })
    else if is "order" value then settle (definition // { value = value.content; inherit (value) order; })
    else [ definition ];

  # sink brings wrappings below the names, which may be known before the conditions.
  sink = definition:
    let value = definition.value; in
    if is "if" value then mapAttrs (_: v: v // { value = mkIf value.condition v.value; }) (sink (definition // { value = value.content; }))
    else mapAttrs (_: v: definition // { value = v; }) value;

  strongest = definitions:
    let
      settled = concatMap settle definitions;
      top = foldl' (least: d: if d.priority < least then d.priority else least) 10000 settled;
    in
    sort (a: b: a.order < b.order) (filter (d: d.priority == top) settled);

  # fuse merges values of which no type is known.
  fuse = path: definitions:
    let
      counting = strongest definitions;
      values = map (d: d.value) counting;
      settled = concatMap settle definitions;
    in
    if settled != [ ] && all (d: isAttrs d.value && d.value.type or "" != "derivation") settled
    then joined (name: fuse "${path}.${name}") (map sink settled)
    else if all isList values then concatMap (v: v) values
    else if length (unique values) == 1 then head values
    else throw "${path} is defined more than once";

  # joined merges sets of definitions name by name.
  joined = merge: sets: listToAttrs (map
    (name: nameValue name (merge name (concatMap (set: optional (hasAttr name set) set.${name}) sets)))
    (unique (concatMap attrNames sets)));

  # node merges what is defined below declarations. What is not declared is an
  # error beside an option, unless the type is open.
  node = open: path: declared: definitions:
    let
      sets = map sink definitions;
      below = name: concatMap (set: optional (hasAttr name set) set.${name}) sets;
      closed = !open && foldl' (found: name: found || is "option" declared.${name}) false (attrNames declared);
      unknown = filter (name: !hasAttr name declared) (unique (concatMap attrNames sets));
    in
    if closed && unknown != [ ] then throw "there is no option ${path}.${head unknown}"
    else
      mapAttrs
        (name: declaration:
          (if is "option" declaration then option else node open) "${path}.${name}" declaration (below name))
        declared
      // listToAttrs (map (name: nameValue name (fuse "${path}.${name}" (below name))) unknown);

  option = path: declaration: definitions:
    let
      counting = strongest definitions;
      type = declaration.type;
      value =
        if type ? options then node true path type.options (concatMap settle definitions)
        else if counting == [ ] then declaration.default or (throw "${path} is not defined")
        else if isList (head counting).value then concatMap (d: d.value) counting
        else if isAttrs (head counting).value && (head counting).value.type or "" != "derivation"
        then fuse path definitions
        else if length (unique (map (d: d.value) counting)) == 1 then (head counting).value
        else throw "${path} is defined more than once";
    in
    if type ? options || type.check value then value else throw "${path} is not ${type.name}";

  type = name: check: { inherit name check; };
  types = {
    bool = type "a boolean" isBool;
    str = type "a string" isString;
    path = type "a path" (v: isAttrs v || builtins.isPath v || isString v && hasPrefix "/" v);
    package = type "a package" (v: isAttrs v && v.type or "" == "derivation");
    enum = values: type "one of ${toString values}" (v: elem v values);
    strMatching = pattern: type "text like ${pattern}" (v: isString v && match pattern v != null);
    ints.between = low: high: type "a number from ${toString low} to ${toString high}" (v: isInt v && v >= low && v <= high);
    nullOr = t: type "null or ${t.name}" (v: v == null || t.check v);
    listOf = t: type "a list of ${t.name}" (v: isList v && all t.check v);
    attrsOf = t: type "a set of ${t.name}" (v: isAttrs v && all (n: t.check v.${n}) (attrNames v));
    submodule = module: type "a set" isAttrs // { inherit (module) options; };
  };

  # all modules that a module imports, and itself.
  load = arguments: module:
    let m = import module arguments;
    in concatMap (load arguments) (m.imports or [ ]) ++ [ m ];

  mergeDeclared = a: b: a // mapAttrs
    (name: value: if hasAttr name a && !is "option" value then mergeDeclared a.${name} value else value)
    b;

  lib = {
    inherit all attrNames concatMap elem filter filterAttrsRecursive hasPrefix hasSuffix mkIf mkOption mkOrder optional optionalAttrs tail types unique;
    mkBefore = mkOrder 500;
    mkAfter = mkOrder 1500;
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    toInt = builtins.fromJSON;
    literalExpression = text: text;
    mapAttrsToList = f: attrs: map (name: f name attrs.${name}) (attrNames attrs);
  };

  pkgs = {
    callPackage = _: _: {
      type = "derivation";
      name = "nar-p2p";
      outPath = "/nix/store/00000000000000000000000000000000-nar-p2p";
    };
    stdenv = {
      buildPlatform.canExecute = _: true;
      hostPlatform = { };
    };
    runCommand = name: arguments: script: arguments.passthru // { inherit script; outPath = "/nix/store/22222222222222222222222222222222-${name}"; };
    formats.toml = _: {
      type = types.attrsOf (type "anything" (_: true));
      generate = _: settings: { inherit settings; outPath = "/nix/store/11111111111111111111111111111111-nar-p2p.toml"; };
    };
  };
in
lib // {
  inherit pkgs;

  # evaluate returns the configuration that a module makes of definitions.
  evaluate = module: definitions:
    let
      modules = load { inherit config lib pkgs; } module;
      declared = foldl' (all: m: mergeDeclared all (m.options or { })) { } modules;
      config = node false "config" declared (map plain (definitions ++ concatMap (m: optional (m ? config) m.config) modules));
    in
    config;
}
