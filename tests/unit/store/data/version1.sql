BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE endings (
	session_id VARCHAR NOT NULL, 
	sequence BIGINT, 
	reply BLOB NOT NULL, 
	CONSTRAINT pk_endings PRIMARY KEY (session_id), 
	CONSTRAINT fk_endings_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "endings" VALUES('s00000000000000000003',5,X'61646170746564');
CREATE TABLE learners (
	id VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	spec JSON NOT NULL, 
	champion INTEGER, 
	previous_champion INTEGER, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_learners PRIMARY KEY (id)
);
INSERT INTO "learners" VALUES('navigation-2d-maml','','{"name":"navigation-2d-maml","method":"maml","family":"navigation-2d","observation_space":{"kind":"box","shape":[2],"low":["-inf","-inf"],"high":["inf","inf"]},"action_space":{"kind":"discrete","n":5},"observation_shift":[0.0,0.1],"observation_scale":[1.0,3.0],"action_shift":[],"action_scale":[],"horizon":100,"baseline":{"kind":"polynomial","degree":2},"settings":{"hidden_sizes":[64,64],"rate":0.1}}',1,NULL,1000000.0);
CREATE TABLE policies (
	"row" INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	session_id VARCHAR, 
	learner_id VARCHAR NOT NULL, 
	revision INTEGER NOT NULL, 
	family VARCHAR NOT NULL, 
	blob VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	header JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_policies PRIMARY KEY ("row"), 
	CONSTRAINT uq_policies_id UNIQUE (id), 
	CONSTRAINT fk_policies_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE SET NULL
);
INSERT INTO "policies" VALUES(1,'p00000000000000000000','bob','s00000000000000000003','navigation-2d-maml',1,'navigation-2d','37c7c4f043bc5cb0c22da8f8dfeb2c59efccd72bd966b835ed7a3e169ec0435c',80,'{"architecture":"mlp"}',1000000.0);
CREATE TABLE revisions (
	learner_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	blob VARCHAR(64) NOT NULL, 
	manifest JSON NOT NULL, 
	promoted BOOLEAN NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_revisions PRIMARY KEY (learner_id, number), 
	CONSTRAINT fk_revisions_learner_id FOREIGN KEY(learner_id) REFERENCES learners (id)
);
INSERT INTO "revisions" VALUES('navigation-2d-maml',1,'7293c93af5cae3ce3443e31e54e4828b5a4e977cf5fe7a026aee1070a5a6d0c3','{"seed":1}',1,1000000.0);
CREATE TABLE sessions (
	"row" INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	owner VARCHAR NOT NULL, 
	request_id VARCHAR, 
	state VARCHAR NOT NULL, 
	learner_id VARCHAR NOT NULL, 
	revision INTEGER NOT NULL, 
	family VARCHAR NOT NULL, 
	simulated BOOLEAN NOT NULL, 
	task JSON, 
	options JSON NOT NULL, 
	budget JSON NOT NULL, 
	seed BIGINT NOT NULL, 
	lease_seconds DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	step INTEGER NOT NULL, 
	episodes BIGINT NOT NULL, 
	seconds DOUBLE NOT NULL, 
	last_sequence BIGINT NOT NULL, 
	policy_id VARCHAR, 
	end_reason VARCHAR NOT NULL, 
	CONSTRAINT pk_sessions PRIMARY KEY ("row"), 
	CONSTRAINT uq_sessions_id UNIQUE (id), 
	CONSTRAINT uq_sessions_owner_request_id UNIQUE (owner, request_id), 
	CONSTRAINT fk_sessions_learner_id_revision FOREIGN KEY(learner_id, revision) REFERENCES revisions (learner_id, number)
);
INSERT INTO "sessions" VALUES(1,'s00000000000000000002','ann','r1','active','navigation-2d-maml',1,'navigation-2d',1,'{"family":"navigation-2d","parameters":{"goal":{"dtype":"float64","shape":[3],"data":"AAAAAAAA0D8AAAAAAAAAgAAAAAAAAPB/"}},"split":"test","seed":7,"index":3}','{"guard":true}','{"steps":3,"episodes":null,"seconds":null,"target_return":-1.5}',9223372036854775807,900.0,1000900.0,1000000.0,1000000.0,2,40,1.0,6,NULL,'');
INSERT INTO "sessions" VALUES(2,'s00000000000000000003','bob',NULL,'finished','navigation-2d-maml',1,'navigation-2d',1,'{"family":"navigation-2d","parameters":{"goal":{"dtype":"float64","shape":[3],"data":"AAAAAAAA0D8AAAAAAAAAgAAAAAAAAPB/"}},"split":"test","seed":7,"index":3}','{"guard":true}','{"steps":3,"episodes":null,"seconds":null,"target_return":-1.5}',9223372036854775807,900.0,1000900.0,1000000.0,1000000.0,0,0,0.0,5,'p00000000000000000000','asked');
CREATE TABLE states (
	session_id VARCHAR NOT NULL, 
	state BLOB, 
	CONSTRAINT pk_states PRIMARY KEY (session_id), 
	CONSTRAINT fk_states_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "states" VALUES('s00000000000000000002',X'73746174652032206F6620733030303030303030303030303030303030303032');
CREATE TABLE steps (
	session_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	sequence BIGINT, 
	reply BLOB NOT NULL, 
	CONSTRAINT pk_steps PRIMARY KEY (session_id, number), 
	CONSTRAINT fk_steps_session_id FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);
INSERT INTO "steps" VALUES('s00000000000000000002',1,4,X'7265706C792031');
INSERT INTO "steps" VALUES('s00000000000000000002',2,6,X'7265706C792032');
CREATE INDEX ix_sessions_state_expires_at ON sessions (state, expires_at);
CREATE INDEX ix_steps_session_id_sequence ON steps (session_id, sequence);
CREATE INDEX ix_policies_owner ON policies (owner);
CREATE INDEX ix_policies_session_id ON policies (session_id);
COMMIT;
