// Before the first paint: the chosen theme and language. Later changes are made by src/shell/preferences.ts.
(function () {
  try {
    var theme = localStorage.getItem("ragsvc.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    var language = localStorage.getItem("ragsvc.language") || navigator.language;
    document.documentElement.lang = /^de/i.test(language) ? "de" : "en";
  } catch (error) {
    // storage is switched off: the defaults apply
  }
})();
