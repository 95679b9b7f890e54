// Tokens by expert: a number in the key shows that expert's tokens alone, and all of them again.
(() => {
  document.querySelectorAll(".by-expert").forEach(box => {
    const [words, key] = box.querySelectorAll(":scope > p");
    const tokens = [...words.querySelectorAll("span")];
    const buttons = [...key.querySelectorAll("[style*='--hue']")].map(chip => {
      const button = document.createElement("button");
      button.type = "button";
      button.style.cssText = chip.style.cssText;
      button.textContent = chip.textContent;
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-label", `${chip.textContent}: show this expert's tokens alone`);
      chip.replaceWith(button);
      return button;
    });
    buttons.forEach(button => button.addEventListener("click", () => {
      const isOn = button.getAttribute("aria-pressed") === "false";
      buttons.forEach(other => other.setAttribute("aria-pressed", String(isOn && other === button)));
      tokens.forEach(token => token.classList.toggle("faint", isOn && token.querySelector("sub").textContent !== button.textContent));
    }));
  });
})();
