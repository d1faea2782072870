import { deploy } from "./program";

export = deploy;
